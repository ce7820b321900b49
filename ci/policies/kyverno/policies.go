// Package policies pins the release of Kyverno whose chart kyverno-policies the tests run over the rendered pods. The import only keeps the
// module in go.mod: this package needs nothing else of it.
package policies

import _ "github.com/kyverno/kyverno/ext/wildcard"
