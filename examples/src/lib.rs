//! Jobs written with the public SDK; see `src/bin`.
