"""Speed, accuracy and memory of fastnorm beside its peers: ``python -m bench``. How to read it: bench/README.md."""
