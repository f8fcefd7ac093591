package schemas

import _ "embed"

// OpenAPI is the description of the query service's API, OpenAPI 3.1 in YAML.
//
//go:embed openapi.yaml
var OpenAPI []byte
