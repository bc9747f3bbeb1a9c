//! Writes the messages and stubs of the client from `clients/camserve.binpb`; takes the folder to write to.

use std::{env, error::Error, fs, path::Path};

use prost::Message;
use prost_types::FileDescriptorSet;

fn main() -> Result<(), Box<dyn Error>> {
    let described = concat!(env!("CARGO_MANIFEST_DIR"), "/../../camserve.binpb");
    let out = env::args().nth(1).ok_or("usage: camserve-codegen FOLDER")?;
    let out = Path::new(&out);
    fs::create_dir_all(out)?;
    let mut files = FileDescriptorSet::decode(fs::read(described)?.as_slice())?;
    for file in &mut files.file {
        // Indented lines of others' comments would be taken for code, and run as tests.
        if file.package().starts_with("google.") {
            file.source_code_info = None;
        }
    }
    let mut messages = prost_build::Config::new();
    // Names tell the details of an error apart.
    messages.enable_type_names();
    tonic_prost_build::configure()
        .build_server(false)
        // Chunks of images are handed on without a copy.
        .bytes(".google.api.HttpBody.data")
        .out_dir(out)
        .compile_fds_with_config(files, messages)?;
    Ok(())
}
