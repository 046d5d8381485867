package api

import (
	"time"

	"usher.example/server"
)

// What a client may do who is not logged in. The numbers are in the document too.
var (
	quotaRegister = server.Quota{Burst: 2000, Every: 500 * time.Millisecond}
	quotaLogin    = server.Quota{Burst: 5000, Every: 50 * time.Millisecond}
	quotaRefresh  = server.Quota{Burst: 10000, Every: 20 * time.Millisecond}
	quotaCode     = server.Quota{Burst: 120, Every: time.Second}     // that is used
	quotaMail     = server.Quota{Burst: 120, Every: 2 * time.Second} // that is asked for
)
