// Package schemas pins the Kubernetes versions whose schema the tests check manifests by. client-go contains the schema of its version, generated
// from k8s.io/api's types; test/internal/chart reads it. The imports only keep the modules in go.mod: this package needs nothing else of them.
package schemas

import (
	_ "kubernetes-1.25.example/client-go/util/homedir"
	_ "kubernetes-1.28.example/client-go/util/homedir"
	_ "kubernetes-1.30.example/client-go/util/homedir"
	_ "kubernetes-1.33.example/client-go/util/homedir"
	_ "kubernetes-1.37.example/client-go/util/homedir"
)
