# Changelog

## 0.1.0

Added

- The @@role@@ `@@name@@/@@name@@`, the run `@@name@@/demo` and a claim with its control.
