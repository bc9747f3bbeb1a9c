"""Model versions as actors of a Ray cluster; only `settings` and `actor` can be imported without Ray."""
