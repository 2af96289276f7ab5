// The example of Deno: on Deno its tasks run as they are, on Node the same application runs with the commands of Millrace.
import { testExample } from "../../support/example.ts"

testExample("deno")
