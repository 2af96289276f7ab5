// The application that the commands, the server and the tests run: the reference application, entity signals.
import { Application, Projection } from "./src/index.ts"
import { signals } from "./projections/signals.ts"

export default Application.make({ name: "signals", projections: [Projection.async(signals)] })
