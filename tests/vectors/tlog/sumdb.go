// Prints what Go's golang.org/x/mod/sumdb makes of a log whose n-th entry is "entry n": roots, proofs, tiles, signed notes.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const height = 8

var stored []tlog.Hash
var reader = tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
	found := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		found[i] = stored[index]
	}
	return found, nil
})

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func digest(hashes []tlog.Hash) string {
	all := sha256.New()
	for _, hash := range hashes {
		all.Write(hash[:])
	}
	return hex.EncodeToString(all.Sum(nil))
}

type row map[string]any

func main() {
	sizes := []int64{1, 2, 7, 255, 256, 257, 511, 512, 513, 1000, 65535, 65536, 65537, 70000}
	for n := int64(0); n < 70000; n++ {
		hashes, err := tlog.StoredHashes(n, []byte(fmt.Sprintf("entry %d", n)), reader)
		check(err)
		stored = append(stored, hashes...)
	}
	var roots, inclusion, consistency, growth, tiles, paths []row
	for _, size := range sizes {
		root, err := tlog.TreeHash(size, reader)
		check(err)
		roots = append(roots, row{"size": size, "root": hex.EncodeToString(root[:])})
		for _, index := range []int64{0, 1, size / 3, size / 2, 254, 255, 256, 65535, size - 2, size - 1} {
			if index < 0 || index >= size {
				continue
			}
			proof, err := tlog.ProveRecord(size, index, reader)
			check(err)
			inclusion = append(inclusion, row{"index": index, "size": size, "hashes": len(proof), "sha256": digest(proof)})
		}
		for _, old := range sizes {
			if old >= size {
				break
			}
			proof, err := tlog.ProveTree(size, old, reader)
			check(err)
			consistency = append(consistency, row{"old": old, "new": size, "hashes": len(proof), "sha256": digest(proof)})
		}
	}
	for i, old := range append([]int64{0}, sizes...) {
		for _, new := range sizes[i:] {
			var names []string
			var data []byte
			for _, tile := range tlog.NewTiles(height, old, new) {
				names = append(names, tile.Path()[len("tile/8/"):])
				read, err := tlog.ReadTileData(tile, reader)
				check(err)
				data = append(data, read...)
			}
			all, content := sha256.New(), sha256.Sum256(data)
			for _, name := range names {
				fmt.Fprintln(all, "tile/"+name)
			}
			growth = append(growth, row{"old": old, "new": new, "tiles": len(names),
				"paths_sha256": hex.EncodeToString(all.Sum(nil)), "hashes_sha256": hex.EncodeToString(content[:])})
		}
	}
	for _, tile := range tlog.NewTiles(height, 0, 70000)[270:] {
		read, err := tlog.ReadTileData(tile, reader)
		check(err)
		content := sha256.Sum256(read)
		tiles = append(tiles, row{"path": "tile/" + tile.Path()[len("tile/8/"):], "sha256": hex.EncodeToString(content[:])})
	}
	for _, tile := range []tlog.Tile{{H: 8, L: 0, N: 0, W: 1}, {H: 8, L: 7, N: 0, W: 127}, {H: 8, L: 1, N: 999, W: 256},
		{H: 8, L: 1, N: 1000, W: 255}, {H: 8, L: 0, N: 1234067, W: 256}, {H: 8, L: 2, N: 999999, W: 7}, {H: 8, L: 0, N: 1000000, W: 256},
		{H: 8, L: 0, N: 36028797018963966, W: 256}} {
		paths = append(paths, row{"level": tile.L, "index": tile.N, "width": tile.W, "path": "tile/" + tile.Path()[len("tile/8/"):]})
	}
	// The keys that sumdb/note's own examples use.
	peter, err := note.NewSigner("PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")
	check(err)
	root, err := tlog.TreeHash(70000, reader)
	check(err)
	text := fmt.Sprintf("PeterNeumann\n70000\n%v\n", root)
	signed, err := note.Sign(&note.Note{Text: text}, peter)
	check(err)
	out := json.NewEncoder(os.Stdout)
	check(out.Encode(row{"roots": roots, "inclusion": inclusion, "consistency": consistency, "growth": growth, "tiles": tiles,
		"paths": paths, "checkpoint": string(signed)}))
}
