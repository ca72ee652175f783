// SPDX-License-Identifier: Apache-2.0

// Package etcd_test holds what a fleet has in etcd against real members: those of the system, with TLS, each in a network
// namespace of its own.
package etcd_test

import (
	"testing"

	"github.com/portcullis-firewall/portcullis/tests/internal/etcdcluster"
)

func TestMain(m *testing.M) { etcdcluster.Main(m) }
