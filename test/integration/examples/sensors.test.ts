// The example of sensors: windows, late events, and a rebuild with a longer grace.
import { testExample } from "../../support/example.ts"

testExample("sensors")
