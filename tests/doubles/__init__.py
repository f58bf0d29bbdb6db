"""What stands at the very edge of the tests: an origin that can lie, a real appliance, real S3 servers."""
