// Starts the Chromium of the tests.

import { chromium } from 'playwright-core';

/** Playwright switches these off; a list of our own takes the place of its. */
const OF_PLAYWRIGHT = [
    'AutoDeElevate', 'AvoidUnnecessaryBeforeUnloadCheckSync', 'BoundaryEventDispatchTracksNodeRemoval', 'DestroyProfileOnBrowserClose',
    'DialMediaRouteProvider', 'GlobalMediaControls', 'HttpsUpgrades', 'LensOverlay', 'MediaRouter', 'OptimizationHints', 'PaintHolding',
    'RenderDocument', 'ThirdPartyStoragePartitioning', 'Translate',
];

/** Each window loads pages for what the address bar may show, which takes two thirds of the time of a short test. */
const ADDRESS_BAR = ['WebUIOmniboxPopup', 'WebUIOmniboxAimPopup'];

export const launchChromium = () =>
    chromium.launch({
        executablePath: '/usr/bin/chromium',
        args: ['--no-sandbox', '--disable-background-networking', `--disable-features=${[...OF_PLAYWRIGHT, ...ADDRESS_BAR]}`],
    });
