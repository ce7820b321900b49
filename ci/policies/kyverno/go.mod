module github.com/istio-os-init/istio-os-init/ci/policies/kyverno

go 1.26.6

require github.com/kyverno/kyverno v1.19.1

require github.com/IGLOU-EU/go-wildcard v1.0.3 // indirect
