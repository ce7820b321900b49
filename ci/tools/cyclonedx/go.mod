module github.com/istio-os-init/istio-os-init/ci/tools/cyclonedx

go 1.26.0

tool github.com/istio-os-init/istio-os-init/ci/tools/cyclonedx

require (
	github.com/CycloneDX/cyclonedx-go v0.12.0
	github.com/santhosh-tekuri/jsonschema/v6 v6.0.3
)

require golang.org/x/text v0.14.0 // indirect
