#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fuzz::glue_parquet(data);
});
