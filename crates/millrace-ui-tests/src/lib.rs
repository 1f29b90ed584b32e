//! Programs that must not compile, with the messages that they get: see `tests/ui`. They are a package of their own so
//! that they depend on the SDK without its heavy features.
