// An application with aggregates alone, for tests of commands.
import { Order } from "../../examples/orders/order.ts"
import { Application } from "../../src/index.ts"

export default Application.make({ name: "orders", aggregates: [Order], projections: [] })
