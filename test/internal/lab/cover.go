package lab

import "testing"

// NotInTheCover skips a test with -short, as `make test` runs it: of the tests that take longest, those whose property other tests show
// in part. The property is a clause, such as "that a taken-over release is rolled back".
func NotInTheCover(t *testing.T, property string) {
	t.Helper()
	if testing.Short() {
		t.Skip("NOT PROVEN: " + property + ". Run make test SHORT=")
	}
}
