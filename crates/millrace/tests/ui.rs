//! The usual mistakes do not compile, and the messages say what to do.

#[test]
fn the_usual_mistakes_do_not_compile() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/functions.rs");
    cases.compile_fail("tests/ui/keyed_state_without_key_by.rs");
    cases.compile_fail("tests/ui/keyed_context_without_key_by.rs");
    cases.compile_fail("tests/ui/mutable_capture.rs");
    cases.compile_fail("tests/ui/record_without_serde.rs");
    cases.compile_fail("tests/ui/capture_that_is_not_send.rs");
}
