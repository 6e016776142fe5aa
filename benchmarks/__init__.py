"""An instrument with a stated error: our stack and a bare one, in alternation, in one run."""
