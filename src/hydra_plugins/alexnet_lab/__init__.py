"""AlexNet Lab's Hydra plugins. Hydra imports each module here at every start, so keep them light."""
