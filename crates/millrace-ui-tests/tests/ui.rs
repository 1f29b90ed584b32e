//! The usual mistakes do not compile, and the messages say what to do. After a change of a message:
//! `TRYBUILD=overwrite cargo test -p millrace-ui-tests`.

#[test]
fn the_usual_mistakes_do_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
