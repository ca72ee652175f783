// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"os"
	"testing"

	"github.com/portcullis-firewall/portcullis/maps/leaktest"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Main(m)) }
