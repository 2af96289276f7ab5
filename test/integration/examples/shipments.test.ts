// The example of orders and shipments: a chain of projections, and a consumer that takes effect once.
import { testExample } from "../../support/example.ts"

testExample("shipments")
