"""One file per library: `SETUPS`, operation -> setup. Imported only through `bench.providers`."""
