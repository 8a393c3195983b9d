//! Against tools with fixed settings, in short.

use flowgate_bench::first_load;

#[test]
fn a_first_load_takes_less_than_sixteen_batches_and_than_one_at_a_time() {
    for servers in [1, 4] {
        let figures = first_load(servers, 1).unwrap();
        assert!(figures.less_than_sixteen_batches >= 0.70, "{figures:#?}");
        assert!(figures.less_than_one_at_a_time >= 0.95, "{figures:#?}");
    }
}

#[tokio::test]
async fn a_name_that_is_not_known_is_refused() {
    assert_eq!(
        flowgate_bench::run("seiling").await.unwrap_err().to_string(),
        "there is no benchmark `seiling`: use `ceiling`, `fixed`, `first_load` or `http`"
    );
}
