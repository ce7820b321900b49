module github.com/istio-os-init/istio-os-init/ci/kubernetes/schemas

go 1.26.0

require (
	kubernetes-1.25.example/client-go v0.25.16
	kubernetes-1.28.example/client-go v0.28.15
	kubernetes-1.30.example/client-go v0.30.14
	kubernetes-1.33.example/client-go v0.33.13
	kubernetes-1.37.example/client-go v0.37.2
)

// One module at several versions: each has a name of its own. Kubernetes 1.N is client-go 0.N.
replace (
	kubernetes-1.25.example/client-go => k8s.io/client-go v0.25.16
	kubernetes-1.28.example/client-go => k8s.io/client-go v0.28.15
	kubernetes-1.30.example/client-go => k8s.io/client-go v0.30.14
	kubernetes-1.33.example/client-go => k8s.io/client-go v0.33.13
	kubernetes-1.37.example/client-go => k8s.io/client-go v0.37.2
)
