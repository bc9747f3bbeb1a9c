//! Uploads files as its standard input says; `python -m benchmarks.clients` measures it meanwhile.

use std::{env, error};

use camserve_client::Client;
use tokio::io::{AsyncBufReadExt, BufReader, stdin};

#[tokio::main]
async fn main() -> Result<(), Box<dyn error::Error>> {
    let client = Client::at(&env::var("CAM_ADDRESS")?, &env::var("CAM_TOKEN")?)?.build();
    let mut lines = BufReader::new(stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let path = line.strip_prefix("upload ").ok_or("what is to be done is `upload PATH`")?;
        println!("{}", client.upload(path, |_| {}).await?.storage_id);
    }
    Ok(())
}
