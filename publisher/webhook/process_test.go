package webhook_test

func runIfWorker() {}
