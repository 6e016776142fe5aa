// Reads chains of PEM certificates, each file leaf first and root last, and prints as JSON what crypto/x509 makes
// of them: chains.go CHAIN.pem... The last certificate is the only trusted one; it may stand alone.
package main

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"runtime"
)

type report struct {
	Go     string
	Chains []chain
}

type chain struct {
	Subjects   []string   // in the file's order
	URIs       []string   // every certificate's, in the file's order
	Extensions [][]string // every certificate's, as dotted object identifiers
	Server     string     // what Verify says to serverAuth; empty if it verifies through the whole file
	Client     string     // the same for clientAuth
}

func main() {
	told := report{Go: runtime.Version()}
	for _, path := range os.Args[1:] {
		certificates, err := parse(path)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		told.Chains = append(told.Chains, describe(certificates))
	}
	if err := json.NewEncoder(os.Stdout).Encode(told); err != nil {
		panic(err)
	}
}

func parse(path string) (certificates []*x509.Certificate, err error) {
	file, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for block, rest := pem.Decode(file); block != nil; block, rest = pem.Decode(rest) {
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certificates = append(certificates, certificate)
	}
	if len(certificates) == 0 {
		return nil, fmt.Errorf("%s holds no certificate", path)
	}
	return certificates, nil
}

func describe(certificates []*x509.Certificate) (told chain) {
	for _, certificate := range certificates {
		told.Subjects = append(told.Subjects, certificate.Subject.CommonName)
		for _, uri := range certificate.URIs {
			told.URIs = append(told.URIs, uri.String())
		}
		var identifiers []string
		for _, extension := range certificate.Extensions {
			identifiers = append(identifiers, extension.Id.String())
		}
		told.Extensions = append(told.Extensions, identifiers)
	}
	told.Server = verify(certificates, x509.ExtKeyUsageServerAuth)
	told.Client = verify(certificates, x509.ExtKeyUsageClientAuth)
	return told
}

func verify(certificates []*x509.Certificate, purpose x509.ExtKeyUsage) string {
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	last := len(certificates) - 1
	roots.AddCert(certificates[last])
	for _, certificate := range certificates[:last] {
		intermediates.AddCert(certificate)
	}
	found, err := certificates[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{purpose},
	})
	if err != nil {
		return err.Error()
	}
	if len(found) != 1 || len(found[0]) != len(certificates) {
		return fmt.Sprintf("verified another path: %d of them, of a file of %d", len(found), len(certificates))
	}
	return ""
}
