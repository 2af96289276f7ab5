// Preact with tagged templates: what every part of the console is made with. Text in templates becomes text nodes, never markup.
import { h } from "preact"
import htm from "htm"

export { Fragment, render } from "preact"
export { useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks"
export const html = htm.bind(h)
