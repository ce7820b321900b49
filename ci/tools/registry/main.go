// Command registry is an OCI registry for the tests: the handlers of the distribution project, on loopback, in memory.
//
// In:  nothing. Out: its address, as 127.0.0.1:PORT, in one line. It ends when its standard input does.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
)

func main() {
	config := &configuration.Configuration{Storage: configuration.Storage{"inmemory": nil}}
	config.HTTP.Secret = "of one process"
	app := handlers.NewApp(context.Background(), config)

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	fmt.Println(listener.Addr())
	fmt.Fprintln(os.Stderr, http.Serve(listener, app))
	os.Exit(1)
}
