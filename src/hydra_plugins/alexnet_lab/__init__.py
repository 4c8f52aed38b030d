"""What Hydra finds of AlexNet Lab: the sweeper. Hydra imports each module here at every start: keep them light."""
