// Pilot-agent, reduced to its one command that the chart calls: Istio's own istio-iptables.
//
// The whole pilot-agent does not build from the Go module proxy: istio.io/istio requires a pseudo-version of
// istio.io/api that the proxy refuses. tools/istio-iptables does not need it. The root command is as in
// istio.io/istio/pilot/cmd/pilot-agent/app/cmd.go, so that flags behave alike.
package main

import (
	"os"

	"github.com/spf13/cobra"
	"istio.io/istio/pkg/log"
	"istio.io/istio/tools/istio-iptables/pkg/cmd"
)

func main() {
	root := &cobra.Command{
		Use:                "pilot-agent",
		Short:              "Stand-in for Istio's pilot-agent: only istio-iptables.",
		SilenceUsage:       true,
		FParseErrWhitelist: cobra.FParseErrWhitelist{UnknownFlags: true},
	}

	// Without these --log_output_level, which Istio's injector passes, would be unknown.
	logging := log.DefaultOptions()
	logging.AttachCobraFlags(root)

	root.AddCommand(cmd.GetCommand(logging))

	if err := root.Execute(); err != nil {
		os.Exit(1)
	}
}
