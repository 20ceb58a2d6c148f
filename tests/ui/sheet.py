import sys
from PIL import Image
files=sys.argv[2:]; ims=[Image.open(f).convert('RGB') for f in files]
ims=[i.crop((0,0,i.width,min(i.height,900))) for i in ims]
W=sum(i.width+12 for i in ims); H=max(i.height for i in ims); s=Image.new('RGB',(W,H),(136,136,136)); x=0
for i in ims: s.paste(i,(x,0)); x+=i.width+12
s.save(sys.argv[1])
