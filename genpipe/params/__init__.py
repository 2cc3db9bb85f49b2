"""params.yaml as frozen types: an unknown key, a wrong type or an unsafe name is an error that names its path."""
