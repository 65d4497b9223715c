"""The same run at the size of a laptop: `moka train RECIPE --tiny`."""
