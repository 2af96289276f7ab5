// The application. Every `millrace` command reads this file.
import { Application, Projection } from "millrace"
import { usage } from "./src/usage.ts"

export default Application.make({ name: "my-app", projections: [Projection.async(usage)] })
