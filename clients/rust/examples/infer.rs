//! Classifies an image and writes its heatmap: `infer PHOTO HEATMAP [MODEL]`.

use std::{env, error, fs, process::ExitCode, time::Duration};

use camserve_client::{
    Client, Error,
    v1::{GradCamOptions, ImageInput, InferRequest, ResponseOptions, image_input::Source},
};

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn error::Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let mut builder = Client::at(&env::var("CAM_ADDRESS")?, &env::var("CAM_TOKEN")?)?.timeout(Duration::from_secs(120));
    if let Ok(authorities) = env::var("CAM_CA") {
        builder = builder.authorities(fs::read(authorities)?)?;
    }
    let client = builder.build();
    let request = InferRequest {
        model: arguments.get(2).map_or("shapes", String::as_str).to_owned(),
        image: Some(ImageInput { source: Some(Source::Bytes(fs::read(&arguments[0])?)), ..Default::default() }),
        grad_cam: Some(GradCamOptions { enabled: true, ..Default::default() }),
        response: Some(ResponseOptions { heatmap: "inline".to_owned() }),
        ..Default::default()
    };
    match client.infer(request, None).await {
        Ok(answer) => {
            for class in &answer.classes {
                println!("{} {:.4}", class.label, class.prob);
            }
            if let Some(file) = answer.heatmap.and_then(|heatmap| heatmap.data_b64) {
                fs::write(&arguments[1], file)?;
            }
        }
        Err(Error { code, status, request_id, .. }) => {
            println!("{code} {status} {}", request_id.unwrap_or_default());
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}
