// The tutorial: an aggregate, a read model of it, a policy with a timer, and the erasure of a customer.
import { testExample } from "../../support/example.ts"

testExample("orders", { environment: { ORDER_PATIENCE_MS: "2500" }, started: /Millrace is running/ })
