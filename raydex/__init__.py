"""Raydex makes documentation searchable: crawl → snapshot (build_index.py) → hits (serve_index.py)."""
