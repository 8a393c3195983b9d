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
