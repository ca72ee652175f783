// SPDX-License-Identifier: Apache-2.0

package host

import (
	"net"
	"sync"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// A connection that is set up while its port closes is alive afterwards, as any other that came in by it.
func TestConnectionsThatComeInWhileAPortCloses(t *testing.T) {
	rule, err := policy.ParseRule("7/tcp")
	if err != nil {
		t.Fatal(err)
	}
	for _, mode := range []loader.Mode{loader.ModeNative, loader.ModeTC} {
		t.Run(string(mode), func(t *testing.T) {
			l := lab.New(t)
			l.Server.Echo(t, 7)
			open := policy.Default()
			open.Open = []policy.Rule{rule}
			up(t, l, mode, open)

			var mu sync.Mutex
			var come []net.Conn
			var dialling sync.WaitGroup
			stop := make(chan struct{})
			for range 4 {
				dialling.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
						}
						if c, err := dial(l.Client, "tcp", lab.ServerV4, 7, refusal); err == nil {
							mu.Lock()
							come = append(come, c)
							mu.Unlock()
						}
					}
				})
			}
			time.Sleep(200 * time.Millisecond)
			with(t, l, func(f *loader.Filter) error {
				_, err := f.CloseRules([]policy.Rule{rule}, false)
				return err
			})
			close(stop)
			dialling.Wait()
			if len(come) < 10 {
				t.Fatalf("only %d connections came in", len(come))
			}
			// Sooner than the server's keepalives, which would begin a flow.
			for _, c := range come {
				if err := talk(c, "after", 5*time.Second); err != nil {
					t.Errorf("of %d connections that came in, one is dead: %v", len(come), err)
					break
				}
			}
			for _, c := range come {
				c.Close()
			}
			mustNotDial(t, l.Client, lab.ServerV4, 7)
		})
	}
}
