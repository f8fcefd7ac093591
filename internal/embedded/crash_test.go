package embedded_test

func runChild(role string) error { return nil }
