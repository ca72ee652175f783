// SPDX-License-Identifier: Apache-2.0

package etcd_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall/fleet/store"
	"github.com/portcullis-firewall/portcullis/firewall/fleet/store/etcd"
	"github.com/portcullis-firewall/portcullis/firewall/fleet/store/storetest"
	"github.com/portcullis-firewall/portcullis/tests/internal/etcdcluster"
)

// What every store does, etcd does too, each time in a folder of its own.
func TestStore(t *testing.T) {
	c := etcdcluster.Start(t, 1)
	n := 0
	storetest.Run(t, func(t *testing.T) storetest.Subject {
		n++
		url := fmt.Sprintf("%s/suite/%d", c.URL(), n)
		open := func(name string) store.Store {
			o := c.User(t, name)
			o.TTL = 4 * time.Second
			s, err := etcd.Open(t.Context(), url, o)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { s.Close() })
			return s
		}
		publisher := open("publisher")
		return storetest.Subject{
			Publisher: publisher,
			Host:      open("h1"),
			HostName:  "h1",
			Expiry:    9 * time.Second,
			Abandon:   func() { publisher.Close() },
		}
	})
}
