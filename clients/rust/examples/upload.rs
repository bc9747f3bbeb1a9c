//! Stores an image and tells how far it came: `upload PHOTO`.

use std::{env, error};

use camserve_client::Client;

#[tokio::main]
async fn main() -> Result<(), Box<dyn error::Error>> {
    let photo = env::args().nth(1).ok_or("usage: upload PHOTO")?;
    let client = Client::at(&env::var("CAM_ADDRESS")?, &env::var("CAM_TOKEN")?)?.build();
    let stored =
        client.upload(&photo, |progress| println!("{} of {} bytes", progress.sent_bytes, progress.total_bytes)).await?;
    println!("{} {}", stored.storage_id, stored.sha256);
    Ok(())
}
