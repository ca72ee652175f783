// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/portcullis-firewall/portcullis/firewall/fleet/store"
	"github.com/portcullis-firewall/portcullis/firewall/fleet/store/etcd"
)

// openers has the stores of fleets by the schemes of their URLs.
var openers = store.Openers{
	"dir":   store.OpenDir,
	"etcd":  etcd.Open,
	"https": store.OpenWeb,
}
