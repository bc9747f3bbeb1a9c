"""The REST surface as an OpenAPI 3.1 document, made from the protos, and as a page."""
