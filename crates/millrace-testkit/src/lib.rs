//! What Millrace's tests share: real services to test against.

pub mod services;
